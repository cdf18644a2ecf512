"""vhost-user: the protocol with a VM's front-end, whose frames go through the guest's own memory."""
