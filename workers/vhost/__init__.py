"""vhost-user: the protocol with a VM's front-end; frames go through the guest's own memory."""
