"""Files as bytes: whole or absent, safe to open, and many records in one."""
