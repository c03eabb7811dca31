"""Jobs over many files, in this process or on Ray, which is imported only here."""
