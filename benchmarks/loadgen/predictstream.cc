// predictstream: streams of inferway.prediction.v1.PredictionService, one thread.
//
//   predictstream HOST:PORT OPENING MESSAGE key=value…
//
// OPENING and MESSAGE are files with a StreamPredictRequest each: the first of every stream, and one with items, whose
// ids all are PLACEHOLDER; each gets its own when it is sent. Keys:
//
//   streams=8 window=8     streams, and items in flight on each
//   items=0                items of each stream, and no more; 0 is no end
//   acknowledge=0          1: tells the server of results, as OPENING says
//   read=1                 0: never reads, so that the server's answers pile up
//   warm=1 seconds=4       measures for so long. seconds=0: says "ready" once every item is answered (or, if nothing is
//                          read, once nothing more can be sent), and stays until its standard input ends
//   channels=0             connections; 0 is one for six streams
//
// Prints one line of JSON. Latency is from the sending of an item to its own result.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

using Clock = std::chrono::steady_clock;
using grpc::ByteBuffer;

constexpr const char* kMethod = "/inferway.prediction.v1.PredictionService/StreamPredict";
constexpr int kIdBytes = 5;
const std::string kPlaceholder = "\x08\xff\xff\xff\xff\x7f";  // StreamItem.id = (1 << 35) - 1
constexpr size_t kRemembered = 4096;                          // send times of a stream, a power of two
constexpr double kStalledSeconds = 2.0;                       // nothing could be sent for so long: nothing more can

double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

std::string file(const char* path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream all;
  all << in.rdbuf();
  return all.str();
}

// The fields of a protobuf message, one after the other.
struct Fields {
  const uint8_t *at, *end;
  uint32_t field = 0;
  uint64_t number = 0;                         // of a varint
  const uint8_t *begin = nullptr, *stop = nullptr;  // of anything with a length
  bool bad = false;

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; at < end && shift < 70; shift += 7) {
      uint8_t byte = *at++;
      value |= uint64_t(byte & 127) << shift;
      if (byte < 128) return value;
    }
    bad = true;
    return 0;
  }
  bool next() {
    if (at >= end || bad) return false;
    uint64_t tag = varint();
    field = uint32_t(tag >> 3);
    size_t skip = 0;
    switch (tag & 7) {
      case 0: number = varint(); break;
      case 1: skip = 8; break;
      case 2: skip = varint(); begin = at; break;
      case 5: skip = 4; break;
      default: bad = true;
    }
    if (skip > size_t(end - at)) bad = true;
    if (bad) return false;
    at += skip;
    stop = at;
    return true;
  }
};

struct Stream;
enum Kind { kStarted, kWritten, kRead, kFinished };
struct Tag {
  Stream* stream;
  Kind kind;
};

struct Stream {
  grpc::ClientContext context;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call;
  grpc::Status status;
  ByteBuffer in;
  std::string message;  // its ids are rewritten before each sending
  std::vector<Clock::time_point> sent_at = std::vector<Clock::time_point>(kRemembered);
  uint64_t sent = 0, received = 0, acknowledged = 0;
  bool writing = true, opened = false, dead = false;
  Tag tags[4] = {{this, kStarted}, {this, kWritten}, {this, kRead}, {this, kFinished}};
};

struct Load {
  std::map<std::string, double> options{{"streams", 8}, {"window", 8}, {"items", 0},   {"acknowledge", 0},
                                        {"read", 1},    {"warm", 1},   {"seconds", 4}, {"channels", 0}};
  std::string opening, message;
  std::vector<size_t> id_at;
  std::vector<std::unique_ptr<Stream>> streams;
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs;
  grpc::CompletionQueue queue;
  std::vector<float> latencies;
  Clock::time_point measured_from, measured_to, last_written = Clock::now();
  uint64_t total = 0, errors = 0, dead = 0, drained = 0;
  std::string first_error;

  int option(const char* name) { return int(options[name]); }

  void failed(const std::string& why) {
    if (first_error.empty()) first_error = why;
  }

  void start(const char* target) {
    int count = option("streams"), channels = option("channels") ? option("channels") : (count + 5) / 6;
    for (int n = 0; n < channels; n++) {
      grpc::ChannelArguments arguments;
      arguments.SetInt("number", n);
      arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      if (!option("read")) {  // or gRPC itself would read on, and keep tens of megabytes for a reader that may come
        arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
        arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 1024);
      }
      auto channel = grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
      channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(20));
      stubs.push_back(std::make_unique<grpc::GenericStub>(channel));
    }
    for (int n = 0; n < count; n++) {
      streams.push_back(std::make_unique<Stream>());
      Stream& stream = *streams.back();
      stream.message = message;
      stream.call = stubs[n % channels]->PrepareCall(&stream.context, kMethod, &queue);
      stream.call->StartCall(&stream.tags[kStarted]);
    }
  }

  void write(Stream& stream, const std::string& bytes) {
    grpc::Slice slice(bytes);
    stream.writing = true;
    stream.call->Write(ByteBuffer(&slice, 1), &stream.tags[kWritten]);
  }

  void acknowledge(Stream& stream) {
    std::string count;  // StreamAcknowledge.results
    for (uint64_t left = stream.received; left || count.empty(); left >>= 7)
      count += char((left & 127) | (left > 127 ? 128 : 0));
    stream.acknowledged = stream.received;
    write(stream, std::string("\x1a") + char(count.size() + 1) + "\x08" + count);
  }

  // Sends what may be sent now.
  void pump(Stream& stream) {
    uint64_t batch = id_at.size(), window = option("window"), most = option("items");
    if (stream.writing || stream.dead || (option("read") && !stream.opened)) return;
    uint64_t behind = option("acknowledge") ? stream.received - stream.acknowledged : 0;
    bool all = most && stream.sent + batch > most;
    if (behind && (2 * behind >= window || (all && stream.received == stream.sent))) {
      acknowledge(stream);
    } else if (!all && stream.sent + batch <= stream.received - behind + window) {
      for (size_t at : id_at) {
        uint64_t id = ++stream.sent;
        for (int n = 0; n < kIdBytes; n++, id >>= 7)
          stream.message[at + n] = char((id & 127) | (n < kIdBytes - 1 ? 128 : 0));
        stream.sent_at[stream.sent % kRemembered] = Clock::now();
      }
      write(stream, stream.message);
    }
  }

  void result(Stream& stream, Fields fields) {
    uint64_t id = 0;
    while (fields.next()) {
      if (fields.field == 1) id = fields.number;
      if (fields.field == 3) {
        errors++;
        failed(std::string((const char*)fields.begin, fields.stop - fields.begin));
      }
    }
    auto now = Clock::now();
    total++, stream.received++;
    if (now >= measured_from && now < measured_to)
      latencies.push_back(std::chrono::duration<float, std::micro>(now - stream.sent_at[id % kRemembered]).count());
  }

  void received(Stream& stream) {
    std::vector<grpc::Slice> slices;
    stream.in.Dump(&slices);
    std::string bytes;
    for (auto& slice : slices) bytes.append((const char*)slice.begin(), slice.size());
    Fields fields{(const uint8_t*)bytes.data(), (const uint8_t*)bytes.data() + bytes.size()};
    while (fields.next()) {
      Fields inner{fields.begin, fields.stop};
      if (fields.field == 1) stream.opened = true;
      if (fields.field == 2) result(stream, inner);
      if (fields.field == 3) drained++;
      if (fields.field == 5)
        while (inner.next()) result(stream, Fields{inner.begin, inner.stop});
    }
  }

  void happened(Stream& stream, Kind kind, bool ok) {
    if (kind == kFinished) {
      failed(stream.status.error_message());
    } else if (!ok) {
      if (!stream.dead) {
        stream.dead = true, dead++;
        stream.call->Finish(&stream.status, &stream.tags[kFinished]);
      }
    } else if (kind == kStarted) {
      write(stream, opening);
      if (option("read")) stream.call->Read(&stream.in, &stream.tags[kRead]);
    } else if (kind == kWritten) {
      stream.writing = false;
      last_written = Clock::now();
      pump(stream);
    } else {
      received(stream);
      stream.call->Read(&stream.in, &stream.tags[kRead]);
      pump(stream);
    }
  }

  bool settled() {
    if (!option("read")) return seconds_since(last_written) > kStalledSeconds;
    uint64_t batch = id_at.size(), each = option("items") / batch * batch;
    return std::all_of(streams.begin(), streams.end(), [&](auto& stream) {
      bool silent = !option("acknowledge") || stream->acknowledged == each;
      return stream->dead || (stream->opened && stream->received == each && silent && !stream->writing);
    });
  }

  // One event, or none for a tenth of a second.
  void turn() {
    void* tag;
    bool ok;
    auto until = std::chrono::system_clock::now() + std::chrono::milliseconds(100);
    if (queue.AsyncNext(&tag, &ok, until) == grpc::CompletionQueue::GOT_EVENT)
      happened(*static_cast<Tag*>(tag)->stream, static_cast<Tag*>(tag)->kind, ok);
  }

  void measure() {
    auto seconds = [](double s) { return std::chrono::microseconds(int64_t(s * 1e6)); };
    measured_from = Clock::now() + seconds(options["warm"]);
    measured_to = measured_from + seconds(options["seconds"]);
    while (Clock::now() < measured_to && dead < streams.size()) turn();
  }

  void hold() {
    for (auto checked = Clock::now(); !settled();) {
      while (seconds_since(checked) < 0.2) turn();
      checked = Clock::now();
    }
    printf("ready\n");
    fflush(stdout);
    pollfd input{STDIN_FILENO, POLLIN, 0};
    for (char byte; poll(&input, 1, 0) == 0 || ::read(STDIN_FILENO, &byte, 1) > 0;) turn();
  }

  void report() {
    std::sort(latencies.begin(), latencies.end());
    auto at = [&](double share) {
      return latencies.empty() ? 0.f : latencies[std::min(latencies.size() - 1, size_t(share * latencies.size()))];
    };
    for (char& c : first_error)
      if (c < 32 || c > 126 || c == '"' || c == '\\') c = '.';
    uint64_t sent = 0;
    for (auto& stream : streams) sent += stream->sent;
    printf("{\"rps\":%.1f,\"p50_us\":%.0f,\"p99_us\":%.0f,\"max_us\":%.0f,\"total\":%lu,\"sent\":%lu,\"drained\":%lu,"
           "\"errors\":%lu,\"err\":\"%.200s\"}\n",
           latencies.size() / std::max(options["seconds"], 1e-9), at(.5), at(.99), at(1), total, sent, drained,
           errors + dead, first_error.c_str());
    fflush(stdout);
  }
};

int main(int count, char** words) {
  Load load;
  load.opening = file(words[2]);
  load.message = file(words[3]);
  for (int n = 4; n < count; n++) {
    std::string word = words[n];
    size_t equals = word.find('=');
    if (!load.options.count(word.substr(0, equals))) return fprintf(stderr, "unknown: %s\n", words[n]), 2;
    load.options[word.substr(0, equals)] = atof(word.c_str() + equals + 1);
  }
  for (size_t at = 0; (at = load.message.find(kPlaceholder, at)) != std::string::npos; at += kPlaceholder.size())
    load.id_at.push_back(at + 1);
  if (load.id_at.empty()) return fprintf(stderr, "no item in %s\n", words[3]), 2;
  load.latencies.reserve(4000000);
  load.start(words[1]);
  if (load.options["seconds"] > 0)
    load.measure();
  else
    load.hold();
  load.report();
  _exit(0);  // the streams are left as they are: taking them down in order would take longer than the load
}
