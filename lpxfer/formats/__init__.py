"""Formats: text or names in, values out. Nothing here touches a disk or a clock."""
