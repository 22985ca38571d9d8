"""Files that several processes use, and that are whole or not there."""
