"""What others have trained or measured, as the stages take it; nothing of it is executed while it is read."""
