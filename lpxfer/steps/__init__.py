"""Steps of the data's way: one step, one module, one verb. They meet on disk only."""
