import com.eatthepath.pushy.apns.ApnsClient;
import com.eatthepath.pushy.apns.ApnsClientBuilder;
import com.eatthepath.pushy.apns.DeliveryPriority;
import com.eatthepath.pushy.apns.PushType;
import com.eatthepath.pushy.apns.auth.ApnsSigningKey;
import com.eatthepath.pushy.apns.util.SimpleApnsPushNotification;
import com.google.gson.Gson;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.Locale;
import java.util.UUID;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicReference;

/** APNs pushes by Pushy, over the TLS of the JDK. `../driven.py` has the protocol. */
public final class Driver {
  private static final class Job {
    String url, ca, key, topic, payload;
    int atOnce;
    long requests, warmUp;
  }

  private final Job job;
  private final ApnsClient client;
  private final Semaphore room;
  private final AtomicReference<String> wrong = new AtomicReference<>();
  private final Instant expiration = Instant.ofEpochSecond(1900000000L);
  private long next;

  private Driver(Job job) throws Exception {
    this.job = job;
    this.room = new Semaphore(job.atOnce);
    var address = job.url.substring("https://".length()).split(":");
    var key = new ByteArrayInputStream(job.key.getBytes(StandardCharsets.US_ASCII));
    this.client =
        new ApnsClientBuilder()
            .setApnsServer(address[0], Integer.parseInt(address[1]))
            .setTrustedServerCertificateChain(new File(job.ca))
            .setSigningKey(ApnsSigningKey.loadFromInputStream(key, "ABCDE12345", "ABCDE12345"))
            .setUseAlpn(true)
            .build();
  }

  private void run(long count) throws InterruptedException {
    for (long sent = 0; sent < count; sent++) {
      room.acquire();
      long number = next++;
      var push =
          new SimpleApnsPushNotification(
              String.format("%064x", number),
              job.topic,
              job.payload,
              expiration,
              DeliveryPriority.IMMEDIATE,
              PushType.ALERT,
              null,
              new UUID(0x5000L, 0x8000000000000000L | number));
      client
          .sendNotification(push)
          .whenComplete(
              (answer, error) -> {
                if (error != null) {
                  wrong.set(error.toString());
                } else if (!answer.isAccepted()) {
                  wrong.set("the gateway answered " + answer.getStatusCode());
                }
                room.release();
              });
    }
    room.acquire(job.atOnce);
    room.release(job.atOnce);
    if (wrong.get() != null) {
      throw new IllegalStateException(wrong.get());
    }
  }

  private static double cpu() {
    var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    return system.getProcessCpuTime() / 1e9;
  }

  public static void main(String[] words) throws Exception {
    var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    var job = new Gson().fromJson(input.readLine(), Job.class);
    var driver = new Driver(job);
    try {
      driver.run(1); // opens the connection that all others share
      driver.run(job.warmUp);
      System.out.println("ready");
      while (input.readLine() != null) {
        double before = cpu();
        long begun = System.nanoTime();
        driver.run(job.requests);
        double cpu = cpu() - before;
        double wall = (System.nanoTime() - begun) / 1e9;
        System.out.printf(
            Locale.ROOT, "{\"requests\": %d, \"cpu\": %f, \"wall\": %f}%n", job.requests, cpu, wall);
      }
      driver.client.close().get();
    } catch (Exception error) {
      System.err.println(error);
      System.exit(1);
    }
  }
}
