#pragma once
#include <stddef.h>
#include <stdint.h>
#include <libaio.h>
