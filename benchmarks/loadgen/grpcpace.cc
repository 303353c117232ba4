// grpcpace: unary gRPC calls at a fixed rate, whatever comes back, until standard input ends.
//
//     grpcpace HOST:PORT /package.Service/Method PAYLOAD_FILE CALLS_PER_SECOND
//
// A call's time counts from the moment at which it was due, so a late start counts as waiting. Prints one line of JSON
// with the milliseconds of every answer, in the order in which they came.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using Clock = std::chrono::steady_clock;

struct Call {
  Clock::time_point due;
  grpc::ClientContext context;
  grpc::ByteBuffer response;
  grpc::Status status;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
};

int main(int count, char** arguments) {
  if (count != 5) {
    std::cerr << "grpcpace HOST:PORT /package.Service/Method PAYLOAD_FILE CALLS_PER_SECOND\n";
    return 64;
  }
  std::ifstream file(arguments[3], std::ios::binary);
  const std::string payload{std::istreambuf_iterator<char>(file), {}};
  const auto interval = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(1 / atof(arguments[4])));
  grpc::Slice slice(payload);
  grpc::ByteBuffer request(&slice, 1);
  const auto channel = grpc::CreateChannel(arguments[1], grpc::InsecureChannelCredentials());
  channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(10));
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;

  std::atomic<bool> stopped{false};
  std::thread([&] {
    while (std::cin.get() != EOF) {
    }
    stopped = true;
  }).detach();

  std::vector<double> milliseconds;
  long errors = 0;
  std::string message;
  std::thread reader([&] {
    void* tag = nullptr;
    bool ok = false;
    while (queue.Next(&tag, &ok)) {
      const std::unique_ptr<Call> call(static_cast<Call*>(tag));
      milliseconds.push_back(std::chrono::duration<double, std::milli>(Clock::now() - call->due).count());
      if (!call->status.ok()) {
        errors++;
        message = call->status.error_message();
      }
    }
  });
  for (auto due = Clock::now(); !stopped; due += interval) {
    std::this_thread::sleep_until(due);
    auto* call = new Call{due};
    call->context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    call->reader = stub.PrepareUnaryCall(&call->context, arguments[2], request, &queue);
    call->reader->StartCall();
    call->reader->Finish(&call->response, &call->status, call);
  }
  queue.Shutdown();  // what is under way is waited for
  reader.join();

  std::cout << "{\"errors\": " << errors << ", \"err\": \"" << message.substr(0, message.find('"')) << "\", \"ms\": [";
  for (size_t index = 0; index < milliseconds.size(); index++) std::cout << (index ? ", " : "") << milliseconds[index];
  std::cout << "]}\n";
  return errors ? 2 : 0;
}
