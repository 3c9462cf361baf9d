/*
 * A plugin that unit tests load and unload: it and its sibling have the same size and the same
 * function, with frames of different layout.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
void stack_plugin(int depth, void (*callback)(void *), void *data);

void stack_plugin(int depth, void (*callback)(void *), void *data)
{
	volatile char room[900];

	room[0] = 1;
	if (depth)
		stack_plugin(depth - 1, callback, data);
	else
		callback(data);
	room[1] = room[0];
}
