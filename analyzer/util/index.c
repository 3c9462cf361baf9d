/*
 * See index.h. A slot's place is the low half of the hash, so it can be found again from the tag
 * and the place it has only together: on growth the low bits are taken from a second array.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "util/index.h"

#include <stdlib.h>

#include "util/alloc.h"
