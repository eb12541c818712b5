"""What the scripts share: the command line, figures and their report, processes, configurations, ceilings."""
