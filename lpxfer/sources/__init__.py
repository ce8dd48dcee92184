"""Where xfer-watch hears of new files, behind one tiny interface, and what it finds there."""
