"""What is deployed on this machine: follow the deployment log and keep its models."""
