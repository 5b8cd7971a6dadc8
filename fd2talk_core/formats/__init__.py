"""Files: motion sequences, Live Link, Deep3D, glTF, video."""
