"""Families of models as tables: one file each, all of them listed in `known`."""
