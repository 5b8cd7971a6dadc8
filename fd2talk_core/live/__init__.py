"""A portrait that listens and speaks while the sound comes in: begin at :mod:`fd2talk_core.live.avatar`."""
