"""What a federation's coordinator and its devices agree on."""
