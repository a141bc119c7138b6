/* Classifies one tensor with libklaus: classify MODEL.klaus INPUT.f32 prints the five most probable classes.
 * INPUT.f32 is what layer 0 reads: rows x cols x channels float32, row by row, channel fastest. */
#include <klaus/klaus.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const klaus_error *error) {
    fprintf(stderr, "classify: %s\n", error->message);
    return (int)error->status;
}

int main(int argc, char **argv) {
    klaus_error error = {KLAUS_E_INPUT, "usage: classify MODEL.klaus INPUT.f32"};
    klaus_model *model;
    if (argc != 3 || klaus_open(argv[1], &model, &error) != KLAUS_OK)
        return fail(&error);
    klaus_description net;
    klaus_describe(model, &net);
    klaus_options options;
    klaus_default_options(&options);
    klaus_session *session;
    if (klaus_session_open(model, &options, &session, &error) != KLAUS_OK)
        return fail(&error);
    size_t count = (size_t)net.rows * (size_t)net.cols * (size_t)net.channels;
    float *input = malloc(count * sizeof *input), *probabilities = malloc((size_t)net.outputs * sizeof *probabilities);
    FILE *file = fopen(argv[2], "rb");
    if (!input || !probabilities || !file || fread(input, sizeof *input, count, file) != count)
        return fprintf(stderr, "classify: %s does not hold %zu floats\n", argv[2], count), 2;
    if (klaus_run(session, input, NULL, probabilities, &error) != KLAUS_OK)
        return fail(&error);
    klaus_class best[5];
    int32_t found = klaus_top(probabilities, net.outputs, best, 5);
    for (int32_t i = 0; i < found; i++)
        printf("%5.2f %% %s\n", 100 * (double)best[i].probability, klaus_label(model, best[i].id));
    fclose(file), free(input), free(probabilities), klaus_session_close(session), klaus_close(model);
    return 0;
}
