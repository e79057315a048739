"""Files and folders of this machine: reading them safely, sharing, moving and putting them in place in one step."""
