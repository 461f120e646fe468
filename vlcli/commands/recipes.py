"""vlcli recipes: list, show, validate."""
