"""Keys of alignment-handbook (``scripts/dpo.py FILE``) and of SimPO's repository: TRL's, and their own."""

from align.recipe.foreign.answers import Table, dropped, grouped, missed

TABLE: Table = {
    "dataset_mixer": grouped("data.train", "a mapping of names to shares; a share is a source's weight"),
    "dataset_mixture": grouped(
        "data.train", "datasets: id is path, config and split keep their names, weight is weight"
    ),
    "dataset_splits": grouped("data.train.0.split", "those with 'test' in their name become data.eval"),
    "dataset_configs": grouped("data.train.0.config", "one a data set"),
    "gamma_beta_ratio": grouped("objective.gamma", "of simpo: the ratio times beta", trains=True),
    "sft_weight": grouped(
        "objective", "a list with {name: sft, weight: ..., nll: batch_mean}", harmless=(0,), trains=True
    ),
    "columns_to_keep": dropped("columns that are not needed are left alone"),
    "dataset_kwargs": missed("sources take path, split and config", {}),
    "preprocessing_num_workers": dropped("the tokenizer uses all cores by itself; what it made is kept on disk"),
    "shuffle_dataset": dropped("training goes over the pairs in random order"),
    "auto_insert_empty_system_msg": missed("messages go through the chat template as they are", False),
    "truncation_side": missed("data.truncation says what is cut, for prompt and completion together", "right"),
    "model_code_revision": missed("model.revision is the revision of weights and code"),
    "hub_model_revision": dropped("trainer.hub_revision names a branch to push to"),
    "system_prompt": missed("messages go through the chat template as they are; write it into the rows"),
    "benchmarks": dropped("nothing is launched behind the run"),
    "callbacks": dropped("callbacks are given to PairTrainer, from Python"),
    "wandb_entity": dropped("set the environment variable WANDB_ENTITY"),
    "wandb_project": dropped("set the environment variable WANDB_PROJECT"),
    "wandb_run_group": dropped("set the environment variable WANDB_RUN_GROUP"),
}
"""Keys it has beside TRL's."""
