"""A print queue for data: from the telescope to the archive, complete and verified.

    telescope site                                       archive site
    xfer-submit -> spool -> xfer-send ==SFTP==> incoming -> xfer-sweep -> instrument directory
                              receipts <=======SFTP======= receipts <-+

The package is a house of floors, and imports go down only:

    cli -> steps -> transports -> stores -> formats -> ground (errors durable checksum)
"""

__version__ = "0.1.0"
