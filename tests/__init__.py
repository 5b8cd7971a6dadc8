"""The tests: a package, since others put one of this name where Python looks for modules."""
