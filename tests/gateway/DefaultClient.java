import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** Sends an image twice by Java's own client, as it is: it offers HTTP/2. Arguments: URL, file. */
public class DefaultClient {
    public static void main(String[] arguments) throws Exception {
        var head = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"cat.jpg\"\r\n\r\n";
        var parts = List.of(
            head.getBytes(), Files.readAllBytes(Path.of(arguments[1])), "\r\n--B--\r\n".getBytes());
        var request = HttpRequest.newBuilder(URI.create(arguments[0]))
            .header("Content-Type", "multipart/form-data; boundary=B")
            .POST(BodyPublishers.ofByteArrays(parts))
            .build();
        var client = HttpClient.newHttpClient();
        for (int count = 0; count < 2; count++) {
            System.out.println(client.send(request, BodyHandlers.ofString()).statusCode());
        }
    }
}
