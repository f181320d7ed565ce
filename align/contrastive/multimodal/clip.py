"""CLIP: which caption belongs to which picture, and the classifiers that any sentence then is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align.trainers.base import RowLosses
from align.wings.data.coloured_digits import TEMPLATES
from align.wings.drawing import contact_sheet, similarity_histogram
from align.wings.gallery import Gallery, Rows
from align.wings.method import Method, method
from align.wings.networks import seeded
from align.wings.parts.pairs import Pairs, info_nce
from align.wings.workbench import Workbench

HOTTEST = 100.0
"""Largest factor of the cosines, as in the paper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSettings:
    """Towers, and what they are trained to do."""

    objective: Literal["contrastive", "bag_of_words", "supervised"] = "contrastive"
    """The method; or the paper's two baselines on the same image tower: predict the caption's words, or the class."""
    duplicates: Literal["ignore", "negative"] = "ignore"
    """What rows with one and the same caption are to each other: nothing, or told apart as in the paper."""
    templates: list[str] = field(default_factory=lambda: list(TEMPLATES))
    """Sentences around a class's name, whose embeddings are averaged; by default those of the coloured digits."""
    width: int = 64
    """Hidden width of both towers."""
    layers: int = 2
    """Transformer layers of each."""
    heads: int = 4
    """Attention heads of each."""
    patch: int = 7
    """Pixels a side of a patch; a divisor of the pictures' size."""
    embedding: int = 64
    """Width of the space both towers end in."""
    temperature: float = 0.07
    """Where the learned temperature begins."""
    validation: float = 0.1
    """Share of the training pictures kept apart, which tuning looks at."""

    def __post_init__(self) -> None:
        if not self.temperature >= 1 / HOTTEST:
            raise ValueError(f"temperature must be at least {1 / HOTTEST}, got {self.temperature}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must lie in (0, 1), got {self.validation}")
        if any("{}" not in template for template in self.templates):
            raise ValueError("templates need {} where the class's name goes")


@method(
    title="Learning Transferable Visual Models From Natural Language Supervision",
    arxiv="2103.00020",
    venue="ICML 2021",
    equation="L = 1/2 mean_i [-log softmax_j(s cos(I_i, T_j))_i - log softmax_j(s cos(T_i, I_j))_i]",
    departures=(
        "a tiny transformers.CLIPModel on digits; words are whole tokens of a vocabulary made of the training captions",
        "rows with the same caption are ignored among the negatives, not told apart (settings.duplicates)",
        "bag-of-words prediction is a softmax over the vocabulary with the caption's words as equal targets",
    ),
)
class Clip(Method):
    """Two towers whose embeddings of a picture and its caption meet, and of others part."""

    Settings = ClipSettings
    quick = {
        "trainer.max_steps": 2,
        "trainer.per_device_train_batch_size": 16,
        "trainer.eval_strategy": "no",
        "data.train_per_class": 10,
    }

    def run(self, work: Workbench) -> Mapping[str, float]:
        """Train the towers, then classify held-out pictures by sentences, and retrieve both ways."""
        train, validation = work.data.train.split(self.settings.validation, work.seed)
        test = work.data.test
        if not train.captions:
            raise ValueError("data: these pictures have no captions; name data with captions, or data.caption")
        self.words = Words(train.captions)
        with seeded(work.seed):
            self.net = Towers(self.settings, self.words, train)
        self.work = work

        def figures() -> Mapping[str, float]:
            if len(train.classes) > 1:
                return {"validation_top1": self.accuracy(validation)}
            return {f"validation_{name}": value for name, value in self.both_ways(validation).items()}

        rows = Rows(pixel_values=train.images, labels=train.labels, **self.words.encode(train.captions))
        work.train(self.net, self.losses, rows, figures=figures, couples_rows=True)
        self.draw(test)
        work.model, work.tokenizer = self.net.clip, self.words.tokenizer()
        named = self.by_novelty(test) if len(test.classes) > 1 else {}
        return {**figures(), **named, **self.both_ways(test), "scale": float(self.net.scale.detach())}

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return what each picture and its caption lose."""
        pictures, texts, logits, scale = model(batch)
        if self.settings.objective != "contrastive":
            return RowLosses(losses=self.predicted(logits, batch), metrics={})
        everyones_pictures, everyones_texts = self.work.gather(pictures), self.work.gather(texts)
        captions = self.work.gather(batch["input_ids"])
        alike = (batch["input_ids"][:, None] == captions[None]).all(-1)
        ignored = alike if self.settings.duplicates == "ignore" else None
        places = self.work.place(batch["labels"])
        pairs = Pairs.matching(places, torch.arange(len(captions), device=places.device), same=ignored)
        of_picture = info_nce(pictures @ everyones_texts.T, pairs, temperature=1 / scale)
        of_text = info_nce(texts @ everyones_pictures.T, pairs, temperature=1 / scale)
        right = (pictures @ everyones_texts.T).masked_fill(alike & ~pairs.positive, -2.0).argmax(1) == places
        return RowLosses(losses=(of_picture + of_text) / 2, metrics={"matched": right.float()})

    def predicted(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return what each picture loses where its words, or its class, are predicted."""
        if self.settings.objective == "supervised":
            return F.cross_entropy(logits, batch["labels"], reduction="none")
        return -(self.words.bags(batch["input_ids"]) * logits.log_softmax(1)).sum(1)

    # ---- what the towers know ----------------------------------------------------------------------------------

    def scores(self, gallery: Gallery, templates: Sequence[str]) -> Tensor:
        """Return how well each picture fits each class, of shape (pictures, classes)."""
        found = self.work.over(self.net.see, gallery.images)
        if self.settings.objective == "supervised":
            return found
        sentences = [[template.format(name) for template in templates] for name in gallery.classes]
        if self.settings.objective == "bag_of_words":
            bags = torch.stack([self.words.bags(self.words.encode(s)["input_ids"]).mean(0) for s in sentences])
            return found.log_softmax(1) @ bags.T
        texts = [self.work.over(self.net.read, self.words.encode(s)["input_ids"]).mean(0) for s in sentences]
        return found @ F.normalize(torch.stack(texts), dim=1).T

    def accuracy(self, gallery: Gallery, templates: Sequence[str] | None = None) -> float:
        """Return the share of pictures whose best-fitting class is theirs."""
        scores = self.scores(gallery, templates or self.settings.templates)
        return float((scores.argmax(1) == gallery.labels).double().mean())

    def by_novelty(self, test: Gallery) -> dict[str, float]:
        """Return accuracies on combinations that training showed and on others, by all templates and by one."""
        apart = test.more.get("held_out", torch.zeros(len(test), dtype=torch.bool))
        found = {"seen_top1": self.accuracy(test.take((~apart).nonzero()[:, 0]))}
        if apart.any():
            novel = test.take(apart.nonzero()[:, 0])
            found["held_out_top1"] = self.accuracy(novel)
            found["held_out_top1_one_template"] = self.accuracy(novel, self.settings.templates[:1])
        return found

    def both_ways(self, test: Gallery) -> dict[str, float]:
        """Return recall@1 from pictures to captions and back, over one held-out picture a class.

        Where nothing is labelled, over one a caption.
        """
        if self.settings.objective != "contrastive":
            return {}
        kinds: Sequence[Any] = test.labels.tolist() if len(test.classes) > 1 else test.captions
        first = {kind: row for row, kind in reversed(list(enumerate(kinds)))}
        one_each = test.take(sorted(first.values()))
        pictures = self.work.over(self.net.see, one_each.images)
        texts = self.work.over(self.net.read, self.words.encode(one_each.captions)["input_ids"])
        table, itself = pictures @ texts.T, torch.arange(len(one_each))
        return {
            "picture_to_text": float((table.argmax(1) == itself).double().mean()),
            "text_to_picture": float((table.argmax(0) == itself).double().mean()),
        }

    def draw(self, test: Gallery) -> None:
        """Draw held-out pictures with what they are taken for, and the similarities of pairs and others."""
        shown = test.take(torch.randperm(len(test), generator=self.work.generator())[:24])
        named = list(shown.captions)
        if len(test.classes) > 1:
            named = [test.classes[label] for label in self.scores(shown, self.settings.templates).argmax(1).tolist()]
        self.work.picture(
            "classified", lambda: contact_sheet(shown.images, named, caption="what pictures are taken for")
        )
        if self.settings.objective == "contrastive":
            pictures = self.work.over(self.net.see, test.images)
            ids = self.words.encode(test.captions)["input_ids"]
            table = pictures @ self.work.over(self.net.read, ids).T
            labelled = len(test.classes) > 1
            alike = test.labels[:, None] == test.labels if labelled else (ids[:, None] == ids).all(-1)
            self.work.picture(
                "similarities", lambda: similarity_histogram(table[alike], table[~alike], "pictures and captions")
            )


class Words:
    """A vocabulary of whole words, made of captions; tokens are padded to the longest, and end with ``</s>``."""

    PAD, END, UNKNOWN = 0, 1, 2

    def __init__(self, captions: Sequence[str]) -> None:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

        self.backend: Any = Tokenizer(models.WordLevel(unk_token="<unk>"))
        self.backend.normalizer = normalizers.Lowercase()
        self.backend.pre_tokenizer = pre_tokenizers.Whitespace()
        special = ["<pad>", "</s>", "<unk>"]
        self.backend.train_from_iterator(
            captions, trainers.WordLevelTrainer(special_tokens=special, show_progress=False)
        )
        self.backend.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", self.END)]
        )
        self.length = max(len(one.ids) for one in self.backend.encode_batch(list(captions)))
        self.backend.enable_truncation(self.length)
        self.backend.enable_padding(pad_id=self.PAD, length=self.length)

    def __len__(self) -> int:
        """Return the number of words."""
        return int(self.backend.get_vocab_size())

    def encode(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Return ``input_ids`` of shape (captions, length)."""
        return {"input_ids": torch.tensor([one.ids for one in self.backend.encode_batch(list(captions))])}

    def tokenizer(self) -> Any:
        """Return the same as a tokenizer of transformers, to be saved beside the model."""
        from transformers import PreTrainedTokenizerFast

        special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        made: Any = PreTrainedTokenizerFast
        return made(tokenizer_object=self.backend, model_max_length=self.length, **special)

    def bags(self, ids: Tensor) -> Tensor:
        """Return each caption's words as shares that sum to 1, of shape (captions, words)."""
        bags = torch.zeros(len(ids), len(self), device=ids.device).scatter_(1, ids, 1.0)
        bags[:, [self.PAD, self.END]] = 0
        return bags / bags.sum(1, keepdim=True).clamp_min(1)


class Towers(nn.Module):
    """A ``transformers.CLIPModel`` made from a configuration, with a linear head for the baselines.

    Args:
        settings: sizes.
        words: the vocabulary.
        gallery: whose pictures and classes it is for.
    """

    def __init__(self, settings: ClipSettings, words: Words, gallery: Gallery) -> None:
        from transformers import CLIPConfig, CLIPModel

        super().__init__()
        channels, size = gallery.images.shape[1], gallery.images.shape[-1]
        if size % settings.patch:
            raise ValueError(f"settings.patch: pictures of {size} pixels are not cut into patches of {settings.patch}")
        shared = {
            "hidden_size": settings.width,
            "intermediate_size": 4 * settings.width,
            "num_hidden_layers": settings.layers,
            "num_attention_heads": settings.heads,
        }
        text = {
            "vocab_size": len(words),
            "max_position_embeddings": words.length,
            "eos_token_id": words.END,
            "bos_token_id": words.END,
            "pad_token_id": words.PAD,
        }
        vision = {"image_size": size, "patch_size": settings.patch, "num_channels": channels}
        self.clip = CLIPModel(
            CLIPConfig(
                text_config={**shared, **text},
                vision_config={**shared, **vision},
                projection_dim=settings.embedding,
                logit_scale_init_value=math.log(1 / settings.temperature),
            )
        )
        self.objective = settings.objective
        outputs = {"contrastive": 0, "bag_of_words": len(words), "supervised": len(gallery.classes)}[settings.objective]
        self.head = nn.Linear(settings.embedding, outputs) if outputs else None
        if self.head is not None:  # what is not trained must not wait for gradients
            self.clip.text_model.requires_grad_(False)
            self.clip.text_projection.requires_grad_(False)
            self.clip.logit_scale.requires_grad_(False)

    @property
    def scale(self) -> Tensor:
        """Factor of the cosines, at most :data:`HOTTEST`."""
        with torch.no_grad():
            self.clip.logit_scale.clamp_(max=math.log(HOTTEST))
        found: Tensor = self.clip.logit_scale.exp()
        return found

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return normalised embeddings of pictures and captions, the head's logits, and the factor of the cosines.

        What an objective does not use is empty. All that is trained is used in here, where other processes see it.
        """
        seen = self.see(batch["pixel_values"])
        nothing = seen.new_zeros(0)
        if self.head is not None:
            return nothing, nothing, seen, nothing
        return seen, self.read(batch["input_ids"]), nothing, self.scale

    def see(self, images: Tensor) -> Tensor:
        """Return the pictures' normalised embeddings; where there is a head, its logits."""
        pooled = self.clip.vision_model(pixel_values=2 * images - 1).pooler_output
        embedded = self.clip.visual_projection(pooled)
        return F.normalize(embedded, dim=1) if self.head is None else self.head(embedded)

    def read(self, ids: Tensor) -> Tensor:
        """Return the captions' normalised embeddings."""
        mask = (ids != Words.PAD).long()
        pooled = self.clip.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return F.normalize(self.clip.text_projection(pooled), dim=1)
