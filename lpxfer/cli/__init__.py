"""Commands: options, one library call, printing. The only floor with click."""
