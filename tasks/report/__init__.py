"""The page that a reviewer decides from."""
