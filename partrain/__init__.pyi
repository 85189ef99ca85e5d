from partrain.from_python import Report as Report
from partrain.from_python import Run as Run
from partrain.from_python import open_run as open_run
from partrain.from_python import train as train

__version__: str
