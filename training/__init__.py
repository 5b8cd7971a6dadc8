"""From nothing to checkpoints: the corpus, the stages and their scorecard. Imports fd2talk_core, never the
reverse.
"""
