/* Stands in for NVIDIA's driver in tests: the same functions, on the host's memory.
 *
 * Work on a stream waits until it is synchronised, so that a missing wait shows. Addresses are
 * checked: a copy to the GPU must go from pinned memory to memory of the GPU. `standin_live` counts
 * what was not given back. */
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NO_DEVICE = 100, CAPTURED = 900 };
enum { HOST = 1, DEVICE = 2, MANY = 4096 };

typedef struct { void (*call)(void *); void *data; void *to; const void *from; size_t size; } Op;
typedef struct { Op ops[MANY]; int count; int capturing; } Queue;
typedef struct { char *at; size_t size; int kind; } Block;

static Block blocks[MANY];
static int live, fail_after = -1;

int standin_live(void) { return live; }
void standin_fail_after(int calls) { fail_after = calls; }

static int devices(void) { const char *n = getenv("STANDIN_DEVICES"); return n ? atoi(n) : 1; }
static int capability(int part) {
    const char *text = getenv("STANDIN_CAPABILITY");
    if (!text) text = "9.0";
    return part == 75 ? atoi(text) : atoi(strchr(text, '.') + 1);
}

int cuInit(unsigned flags) { (void)flags; return devices() ? OK : NO_DEVICE; }
int cuDriverGetVersion(int *version) { *version = 13000; return OK; }
int cuDeviceGet(int *device, int ordinal) {
    if (ordinal >= devices()) return 101;
    *device = ordinal;
    return OK;
}
int cuDeviceGetName(char *name, int length, int device) {
    (void)device;
    const char *text = getenv("STANDIN_GPU");
    strncpy(name, text ? text : "Stand-in GPU", length);
    return OK;
}
int cuDeviceGetAttribute(int *value, int which, int device) {
    (void)device;
    *value = capability(which);
    return OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
    (void)device;
    live++;
    *context = &live;
    return OK;
}
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; live--; return OK; }
int cuCtxSetCurrent(void *context) { return context == &live ? OK : 201; }
int cuGetErrorString(int code, const char **text) {
    *text = code == NO_DEVICE ? "no CUDA-capable device is detected"
          : code == NO_MEMORY ? "out of memory" : "invalid argument";
    return OK;
}

static int take(void **at, size_t size, int kind) {
    if (fail_after == 0) return NO_MEMORY;
    if (fail_after > 0) fail_after--;
    for (int i = 0; i < MANY; i++)
        if (!blocks[i].at) {
            blocks[i] = (Block){aligned_alloc(256, (size + 255) / 256 * 256), size, kind};
            *at = blocks[i].at;
            live++;
            return OK;
        }
    return NO_MEMORY;
}
static int give(void *at, int kind) {
    for (int i = 0; i < MANY; i++)
        if (at && blocks[i].at == at && blocks[i].kind == kind) {
            free(at);
            blocks[i].at = 0;
            live--;
            return OK;
        }
    return INVALID;
}
static int holds(const void *at, size_t size, int kind) {
    for (int i = 0; i < MANY; i++)
        if (blocks[i].at && blocks[i].kind == kind && (char *)at >= blocks[i].at
            && (char *)at + size <= blocks[i].at + blocks[i].size) return 1;
    return 0;
}
int cuMemAlloc_v2(void **at, size_t size) { return size ? take(at, size, DEVICE) : INVALID; }
int cuMemFree_v2(void *at) { return give(at, DEVICE); }
int cuMemHostAlloc(void **at, size_t size, unsigned flags) {
    (void)flags;
    return size ? take(at, size, HOST) : INVALID;
}
int cuMemFreeHost(void *at) { return give(at, HOST); }

static int put(Queue *queue, Op op) {
    if (queue->count == MANY) return NO_MEMORY;
    queue->ops[queue->count++] = op;
    return OK;
}
static void run(Queue *queue) {
    for (int i = 0; i < queue->count; i++) {
        Op *op = &queue->ops[i];
        if (op->call) op->call(op->data); else memcpy(op->to, op->from, op->size);
    }
}
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t size, void *stream) {
    if (!holds(to, size, DEVICE) || !holds(from, size, HOST)) return INVALID;
    return put(stream, (Op){.to = to, .from = from, .size = size});
}
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t size, void *stream) {
    if (!holds(to, size, HOST) || !holds(from, size, DEVICE)) return INVALID;
    return put(stream, (Op){.to = to, .from = from, .size = size});
}
int cuLaunchHostFunc(void *stream, void (*call)(void *), void *data) {
    return put(stream, (Op){.call = call, .data = data});
}
int cuStreamCreate(void **stream, unsigned flags) {
    (void)flags;
    live++;
    return (*stream = calloc(1, sizeof(Queue))) ? OK : NO_MEMORY;
}
int cuStreamDestroy_v2(void *stream) { free(stream); live--; return OK; }
int cuStreamSynchronize(Queue *stream) {
    if (stream->capturing) return CAPTURED;
    run(stream);
    stream->count = 0;
    return OK;
}
int cuStreamBeginCapture_v2(Queue *stream, int mode) {
    (void)mode;
    if (stream->capturing || stream->count) return INVALID;
    stream->capturing = 1;
    return OK;
}
int cuStreamEndCapture(Queue *stream, void **graph) {
    if (!stream->capturing) return INVALID;
    Queue *copy = malloc(sizeof(Queue));
    *copy = *stream;
    stream->capturing = stream->count = 0;
    *graph = copy;
    live++;
    return OK;
}
int cuGraphInstantiateWithFlags(void **exec, Queue *graph, unsigned long long flags) {
    if (flags) return INVALID;
    *exec = malloc(sizeof(Queue));
    memcpy(*exec, graph, sizeof(Queue));
    live++;
    return OK;
}
int cuGraphLaunch(Queue *exec, Queue *stream) {
    for (int i = 0; i < exec->count; i++) put(stream, exec->ops[i]);
    return OK;
}
int cuGraphExecDestroy(void *exec) { free(exec); live--; return OK; }
int cuGraphDestroy(void *graph) { free(graph); live--; return OK; }
