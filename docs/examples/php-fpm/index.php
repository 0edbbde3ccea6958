<?php
header('Content-Type: application/json');
echo json_encode(['php' => PHP_MAJOR_VERSION, 'sum' => array_sum([1, 2, 3])]), "\n";
