"""What is kept on disk: journals of long work, and files that carry their own digest."""
