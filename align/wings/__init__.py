"""What the wings share: how a method is declared, found, run, and its claim tested; parts that methods are made of."""
