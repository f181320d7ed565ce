"""What is measured on held-out data: accuracy with intervals, length controls, samples before and after.

Every number is of the whole data set, never a mean of batch means, and comes with the interval it deserves.
"""
