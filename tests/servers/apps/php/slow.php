<?php
// In pieces: a signal ends a sleep.
for ($end = microtime(true) + (float) $_GET["seconds"]; microtime(true) < $end; ) usleep(10000);
echo "done";
