"""Networks in plain torch; how they scale with width comes from the row of the table that they are given."""
