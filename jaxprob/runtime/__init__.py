"""What runs where: programs, their sizes, and how long they are kept."""
