"""The commands of `stockpot`, one file each; what they share is in the files with an underscore."""
