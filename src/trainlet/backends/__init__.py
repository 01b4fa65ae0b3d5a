"""Program -> sources, one folder a target."""
