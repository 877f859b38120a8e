"""What the processes of Hybrid Memory share."""
