/*
 * What memtrace top adds to a document of the analyzer's: bytes on devices, as NVML says, of processes
 * of which the trace does not tell them. That is so after an attach, where nobody like `memtrace run`
 * watches, and where the calls themselves were not seen.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <cjson/cJSON.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "nvml.h"
#include "top.h"

#define INTERVAL_NS UINT64_C(1000000000)
#define PATIENCE_MS 5000 /* of a single look: NVML may take seconds to begin */
#define MAPS_A_LOOK 8 /* processes whose mappings are read for libcuda */
#define CLIENTS 1024

static struct nvml nvml;

static struct client { /* of a device, as last told */
	uint8_t uuid[16];
	uint32_t pid, clients;
	uint64_t own, asked;
} clients[CLIENTS];
static size_t client_count;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static const cJSON *get(const cJSON *o, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(o, key);
}

static int pid_of(const cJSON *process)
{
	const cJSON *pid = get(process, "pid");

	return cJSON_IsNumber(pid) ? pid->valueint : 0;
}

static int is_alive(const cJSON *process)
{
	return !cJSON_IsTrue(get(process, "ended"));
}

/* ---- who uses one ------------------------------------------------------------------------------------ */

static int maps_libcuda(int pid)
{
	char path[64], line[4096];
	int found = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f))
		found = strstr(line, "/libcuda.so") != NULL;
	if (f)
		fclose(f);
	return found;
}

/* Says the trace so, or does it have the driver's library? Some are looked at in each document, in turn. */
static int uses_device(const cJSON *process, size_t index, size_t count)
{
	static unsigned char known[65536]; /* by pid, modulo: 1: it has, once seen */
	static size_t turn;
	unsigned char *has = &known[pid_of(process) & 65535];

	if (cJSON_IsNumber(get(process, "device_bytes")))
		return 1;
	if (index == 0)
		turn = turn + MAPS_A_LOOK < count ? turn + MAPS_A_LOOK : 0;
	if (!*has && (count <= MAPS_A_LOOK || (index + count - turn) % count < MAPS_A_LOOK))
		*has = (unsigned char)maps_libcuda(pid_of(process));
	return *has;
}

/* ---- what they use ----------------------------------------------------------------------------------- */

static void hear(const struct nvml_answer *a)
{
	struct client *c = NULL;

	for (size_t i = 0; i < client_count && !c; i++)
		if (clients[i].pid == a->pid && !memcmp(clients[i].uuid, a->uuid, sizeof(a->uuid)))
			c = &clients[i];
	if (!c && client_count < CLIENTS)
		c = &clients[client_count++];
	if (!c)
		return;
	memcpy(c->uuid, a->uuid, sizeof(c->uuid));
	c->pid = a->pid;
	c->clients = a->clients;
	c->own = a->own;
	c->asked = a->asked;
}

/* Of who left there is no answer any more. */
static void forget_old(void)
{
	size_t kept = 0;

	for (size_t i = 0; i < client_count; i++)
		if (now_ns() - clients[i].asked < 30 * INTERVAL_NS)
			clients[kept++] = clients[i];
	client_count = kept;
}

static void listen(int wait)
{
	uint64_t end = now_ns() + PATIENCE_MS * UINT64_C(1000000), rounds = nvml.rounds;
	struct nvml_answer a;

	do {
		struct pollfd p = { .fd = nvml.fd, .events = POLLIN };

		if (wait && poll(&p, 1, 100) < 0)
			break;
		while (nvml_next(&nvml, &a))
			hear(&a);
	} while (wait && !nvml.over && nvml.rounds == rounds && now_ns() < end);
	forget_old();
}

static int is_in_document(void *arg, pid_t number, pid_t in_proc)
{
	const cJSON *process;

	(void)in_proc;
	cJSON_ArrayForEach(process, get(arg, "processes"))
	{
		if (is_alive(process) && pid_of(process) == number)
			return 1;
	}
	return 0;
}

/* Adds a client's bytes to the process that it is; only: the one process that uses a GPU, or 0. */
static void add_client(cJSON *doc, const struct client *c, int only)
{
	int is_other;
	pid_t pid = nvml_match(c->pid, is_in_document, doc, &is_other);
	cJSON *process, *sum;

	if (!pid && !is_other && c->clients == 1)
		pid = only;
	cJSON_ArrayForEach(process, cJSON_GetObjectItemCaseSensitive(doc, "processes"))
	{
		if (!pid || pid_of(process) != pid || !is_alive(process) || !c->own)
			continue;
		sum = cJSON_GetObjectItemCaseSensitive(process, "nvml_bytes");
		if (sum)
			cJSON_SetNumberValue(sum, sum->valuedouble + (double)(c->own - 1));
		else
			cJSON_AddNumberToObject(process, "nvml_bytes", (double)(c->own - 1));
	}
}

/* What was added up becomes what the trace does not tell. */
static void put_sums(cJSON *doc)
{
	cJSON *process, *sum;

	cJSON_ArrayForEach(process, cJSON_GetObjectItemCaseSensitive(doc, "processes"))
	{
		sum = cJSON_DetachItemFromObjectCaseSensitive(process, "nvml_bytes");
		if (sum && !cJSON_IsNumber(get(process, "device_driver_bytes")))
			cJSON_ReplaceItemInObjectCaseSensitive(process, "device_driver_bytes", sum);
		else
			cJSON_Delete(sum);
	}
}

void top_end_nvml(void)
{
	nvml_stop(&nvml);
}

void top_ask_nvml(cJSON *doc, int wait)
{
	size_t count = (size_t)cJSON_GetArraySize(get(doc, "processes")), i = 0;
	int users = 0, missing = 0, only = 0;
	const cJSON *process;

	if (nvml.over || !cJSON_IsTrue(get(doc, "running")))
		return;
	cJSON_ArrayForEach(process, get(doc, "processes"))
	{
		if (is_alive(process) && uses_device(process, i, count)) {
			only = users++ ? 0 : pid_of(process);
			missing += !cJSON_IsNumber(get(process, "device_driver_bytes"));
		}
		i++;
	}
	if (!missing)
		return;
	if (!nvml.helper && nvml_start(&nvml, INTERVAL_NS, now_ns) < 0)
		return;
	listen(wait);
	for (size_t k = 0; k < client_count; k++)
		add_client(doc, &clients[k], only);
	put_sums(doc);
}
