import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;

/**
 * An HTTP/1.1 server on Java's own library that tells what it is asked. It prints {"port": …}, and then
 * a line of JSON for each request that it has read to its end.
 */
public class Origin {
    public static void main(String[] arguments) throws Exception {
        var address = new InetSocketAddress(InetAddress.getLoopbackAddress(), 0);
        var server = HttpServer.create(address, 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", exchange -> {
            var body = exchange.getRequestBody().readAllBytes();
            var headers = exchange.getRequestHeaders();
            var method = exchange.getRequestMethod();
            var target = exchange.getRequestURI().toString();
            print("{\"id\": %s, \"method\": %s, \"target\": %s, \"host\": %s, \"body\": %s}".formatted(
                    text(headers.getFirst("x-request-id")),
                    text(method),
                    text(target),
                    text(headers.getFirst("host")),
                    text(new String(body, StandardCharsets.ISO_8859_1))));
            var answer = (method + " " + target).getBytes(StandardCharsets.UTF_8);
            var hasBody = !method.equals("HEAD");
            exchange.sendResponseHeaders(200, hasBody ? answer.length : -1);
            if (hasBody) {
                exchange.getResponseBody().write(answer);
            }
            exchange.close();
        });
        server.start();
        print("{\"port\": %d}".formatted(server.getAddress().getPort()));
    }

    private static synchronized void print(String line) {
        System.out.println(line);
        System.out.flush();
    }

    private static String text(String value) {
        if (value == null) {
            return "null";
        }
        var json = new StringBuilder("\"");
        value.chars().forEach(unit -> json.append("\\u%04x".formatted(unit)));
        return json.append("\"").toString();
    }
}
