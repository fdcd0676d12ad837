"""The memory that configured models take, planned from the headers of their files for a machine."""
