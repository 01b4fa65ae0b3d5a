"""What runs around an emitted program."""
