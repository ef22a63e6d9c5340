"""How a candidate is made, one stage a file. Everything starts from a recipe (training/recipes/*.toml)."""
