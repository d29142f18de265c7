"""Tasks: how each kind handles labels, answers and models. Its inputs and route are in `recipes.kinds`."""
