"""What axe asks of whole pages, and a widget alone in a test's page cannot have."""

OF_WHOLE_PAGES = {
    rule: {"enabled": False} for rule in ("region", "landmark-one-main", "page-has-heading-one")
}
