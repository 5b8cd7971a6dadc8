"""What is trained: the networks, their attention and diffusion, and the files that they come from."""
