"""The schemas of recipes, one of each kind: every key there is, its values and what the papers give."""
