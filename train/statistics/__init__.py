"""What chance may have done to a result: intervals and paired tests, each file with its source."""
